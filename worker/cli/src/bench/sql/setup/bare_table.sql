-- The columns, defaults and keys of sagas, without checks and triggers.
create schema bare; create table bare.saga (like pgsaga.saga including defaults including identity including indexes)
