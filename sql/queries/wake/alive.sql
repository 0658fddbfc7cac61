-- Asks the server for a sign of life, on a connection that carries no other statement.
select true as alive
