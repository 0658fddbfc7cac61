-- Makes the database one of this cluster: workers may work in it.
insert into pgsaga.home (system_identifier) values (pgsaga.system_identifier())
on conflict (is_the_row) do update set system_identifier = excluded.system_identifier, adopted_at = clock_timestamp()
