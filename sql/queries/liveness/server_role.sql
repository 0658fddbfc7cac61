-- Whether this server takes writes: asked of each new connection where a URL names several hosts.
select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only
