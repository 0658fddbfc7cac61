-- {name} as in create_scratch.sql. Force: a connection of a killed worker may linger.
drop database if exists {name} with (force)
