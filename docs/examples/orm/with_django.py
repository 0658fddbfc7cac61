# DATABASE_URL=postgres://… python3 docs/examples/orm/with_django.py       (needs Django 5 and psycopg 3)
import os
import time

import django
from django.conf import settings
from django.db import IntegrityError, connection, models, transaction
from django.db.models.expressions import RawSQL
from psycopg.conninfo import conninfo_to_dict

# What your settings.py has. Django names no schemas: the search_path finds pgsaga's table.
database = conninfo_to_dict(os.environ["DATABASE_URL"], options="-c search_path=public,pgsaga")
name = database.pop("dbname")
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": name, "OPTIONS": database}})
django.setup()


class Order(models.Model):
    id = models.BigIntegerField(primary_key=True)
    cents = models.BigIntegerField()

    class Meta:
        app_label = "shop"
        db_table = "orders"


class Saga(models.Model):
    """Has the columns that an INSERT gives, and no others: Django writes all columns of a model."""

    id = models.BigAutoField(primary_key=True)
    gid = models.CharField(max_length=128)
    steps = models.JSONField()

    class Meta:
        app_label = "shop"
        db_table = "saga"
        managed = False


order, cents = 5, 990
gid = f"order-{order}"
steps = [
    {"name": "stock", "action": "http://127.0.0.1:8080/stock/reserve", "compensate": "http://127.0.0.1:8080/stock/release",
     "payload": {"order": order}},
    {"name": "payment", "action": "http://127.0.0.1:8080/payment/charge", "compensate": "http://127.0.0.1:8080/payment/refund",
     "payload": {"order": order, "cents": cents}},
]

if "orders" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:
        editor.create_model(Order)

with transaction.atomic():
    Order.objects.get_or_create(id=order, defaults={"cents": cents})
    # Not `ignore_conflicts`, which names no column: it would also skip a saga whose id is taken.
    try:
        with transaction.atomic():
            print(gid, "has the id", Saga.objects.create(gid=gid, steps=steps).id)
    except IntegrityError as error:
        if error.__cause__.diag.constraint_name != "saga_gid_key":
            raise
        print(gid, "was there already")

# Waiting is optional: the saga goes on by itself. Ask seldom, and more seldom the longer it takes.
pause = 0.05
while True:
    status, reason = Saga.objects.filter(gid=gid).values_list(RawSQL("status", ()), RawSQL("reason", ())).get()
    if status in ("succeeded", "failed", "stuck") or pause > 10:
        break
    time.sleep(pause)
    pause *= 2
print(status, reason or "")
