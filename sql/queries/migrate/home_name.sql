-- Names the environment of the database.
--   $1 environment
update pgsaga.home set environment = $1
