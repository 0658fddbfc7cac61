-- One bank's table, in the schema that the connection's search_path names. Idempotent.
do $$
begin
  execute format('create schema if not exists %I', current_setting('search_path'));
end
$$;

create table if not exists account (
  id      int primary key,
  balance bigint not null check (balance >= 0),
  frozen  boolean not null default false
) with (fillfactor = 50);
