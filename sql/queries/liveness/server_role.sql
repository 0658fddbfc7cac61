-- Whether this server accepts writes. Runs on each new connection if the URL names several hosts.
select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only
