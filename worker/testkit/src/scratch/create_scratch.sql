-- {name} is filled in with a name of our own making: an identifier cannot be a parameter.
create database {name}
