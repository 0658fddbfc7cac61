-- {name} is filled in with a name of the demo's own making: an identifier cannot be a parameter.
create database {name}
