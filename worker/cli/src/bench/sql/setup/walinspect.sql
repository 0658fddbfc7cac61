-- Tells full-page images apart; it comes with Postgres 15 and later.
create extension if not exists pg_walinspect schema public
