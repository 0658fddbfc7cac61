-- Returns the environment of the database, and what a worker of that environment is told.
select h.environment, c.misfit, c.doubt
from (select (select environment from pgsaga.home) as environment) h
cross join lateral pgsaga.check_home(h.environment) c
