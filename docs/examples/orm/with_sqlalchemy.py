# DATABASE_URL=postgres://… python3 docs/examples/orm/with_sqlalchemy.py       (needs SQLAlchemy 2 and psycopg 3)
import os
import time

from sqlalchemy import BigInteger, FetchedValue, Identity, Text, create_engine, make_url, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    cents: Mapped[int] = mapped_column(BigInteger)


class Saga(Base):
    __tablename__ = "saga"
    __table_args__ = {"schema": "pgsaga"}
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    gid: Mapped[str] = mapped_column(Text)
    # May be written and not read: deferred columns are left out of every SELECT.
    steps: Mapped[list] = mapped_column(JSONB, deferred=True)
    # FetchedValue leaves a column out of the INSERT: only the database may write it.
    status: Mapped[str] = mapped_column(Text, server_default=FetchedValue())
    reason: Mapped[str | None] = mapped_column(Text, server_default=FetchedValue())


order, cents = 4, 990
gid = f"order-{order}"
steps = [
    {"name": "stock", "action": "http://127.0.0.1:8080/stock/reserve", "compensate": "http://127.0.0.1:8080/stock/release",
     "payload": {"order": order}},
    {"name": "payment", "action": "http://127.0.0.1:8080/payment/charge", "compensate": "http://127.0.0.1:8080/payment/refund",
     "payload": {"order": order, "cents": cents}},
]

engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
Base.metadata.create_all(engine, tables=[Order.__table__])

with Session(engine) as session, session.begin():
    session.execute(insert(Order).values(id=order, cents=cents).on_conflict_do_nothing(index_elements=["id"]))
    submit = insert(Saga).values(gid=gid, steps=steps).on_conflict_do_nothing(index_elements=["gid"])
    saga_id = session.scalar(submit.returning(Saga.id))
print(gid, f"has the id {saga_id}" if saga_id else "was there already")

# Without a gid of your own the unit of work does as well, because nothing can clash: it reads back what the database chose.
#   session.add(Saga(steps=steps))

# Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes.
pause = 0.05
while True:
    with Session(engine) as session:
        saga = session.scalars(select(Saga).where(Saga.gid == gid)).one()
    if saga.status in ("succeeded", "failed", "stuck") or pause > 10:
        break
    time.sleep(pause)
    pause *= 2
print(saga.status, saga.reason or "")
