-- The business rows of the producers: each is inserted in the transaction of its saga.
create schema demo;

create table demo.transfer_order (
  gid          text collate "C" primary key,
  from_bank    text not null,
  from_account int not null,
  to_bank      text not null,
  to_account   int not null,
  amount       bigint not null check (amount > 0)
);
