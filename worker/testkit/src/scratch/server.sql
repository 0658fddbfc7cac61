-- Which Postgres this is, and whether its commits survive a crash.
select current_setting('server_version') as version, current_setting('fsync') as fsync
