-- An idle worker holds this lock on its listening connection; the insert trigger notifies only while someone does.
select pg_try_advisory_lock(8101820131131281) as locked
