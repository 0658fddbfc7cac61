-- Asks a server on whose connection nothing else is said for a sign of life.
select true as alive
