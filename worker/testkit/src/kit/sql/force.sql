-- Ends saga $1 as it is.
select pgsaga.force($1, 'the test kit gives it up')
