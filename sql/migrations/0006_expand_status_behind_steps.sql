-- A change of status no longer writes the steps a second time. An update is logged from the first byte that changes to the last
-- one, as long as the new version fits on the same page: `status` stood before the steps and `finished_at` stands behind them,
-- and a page had room for four new versions of ten rows that are finished together. So each success logged the whole row, and
-- every third one made new entries in both indexes. Workers of version 5 name columns, so they go on.
--
-- Rows that succeeded, which are nearly all of a large table, get their status without being touched; the others are rewritten.
-- Whoever built a view, an index or a trigger upon `status` is told its name by the error, and makes it again afterwards.
alter table pgsaga.saga
  drop constraint saga_status_check,
  drop constraint reason_when_not_well,
  drop constraint finished_at_when_finished;
alter table pgsaga.saga rename column status to status_before_steps;
alter table pgsaga.saga add column status text not null default 'succeeded';
alter table pgsaga.saga alter column status set default 'submitted';
update pgsaga.saga set status = status_before_steps where status_before_steps <> 'succeeded';
alter table pgsaga.saga drop column status_before_steps;
alter table pgsaga.saga
  add constraint saga_status_check check (status in ('submitted', 'succeeded', 'aborting', 'failed', 'stuck')),
  add constraint reason_when_not_well check ((reason is not null) = (status in ('aborting', 'failed', 'stuck'))),
  add constraint finished_at_when_finished check ((finished_at is not null) = (status in ('succeeded', 'failed')));
comment on column pgsaga.saga.status is 'submitted -> succeeded, or -> aborting -> failed; or stuck, which needs a person.';
grant select (status) on pgsaga.saga to pgsaga_producer;
grant update (status) on pgsaga.saga to pgsaga_worker;

-- Half a page free, for the last version of each row. At 70 a table was as large in the end, its indexes twice as large.
alter table pgsaga.saga set (fillfactor = 50);
