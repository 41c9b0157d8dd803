"""Django's ORM over psycopg 3, with its own pool. VARIANT=server: parameters are bound by the server."""

import os
import threading
from datetime import datetime, timezone

import django
from django.conf import settings as configuration
from report import FIND_SLEEPER, PRIMARY, SERVED_BY, SLEEP, TYPES, VARIANT, fails, run, same, until

configuration.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "NAME": os.environ["PGDATABASE"],
            "OPTIONS": {
                "pool": {"min_size": 2, "max_size": 4, "timeout": 60},
                "server_side_binding": VARIANT == "server",
            },
        }
    },
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import DatabaseError, connection, models, transaction  # noqa: E402


class Item(models.Model):
    id = models.IntegerField(primary_key=True)
    name = models.TextField()

    class Meta:
        app_label = "drivers"
        db_table = "item"


class Kind(models.Model):
    id = models.IntegerField(primary_key=True)
    t = models.TextField()
    b = models.BinaryField()
    j = models.JSONField()
    at = models.DateTimeField()
    a = ArrayField(models.IntegerField(null=True))
    words = ArrayField(models.TextField())
    n = models.TextField(null=True)

    class Meta:
        app_label = "drivers"
        db_table = "kind"


def value(sql, args=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, args)
        return cursor.fetchone()[0]


def change(sql, args=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, args)


def sqlstate(error):
    return error.__cause__.sqlstate


def connect():
    connection.ensure_connection()
    assert connection.pg_version >= 140000
    # Django's own tables, by its own migrations, once per database.
    call_command("migrate", verbosity=0)


def simple():
    same(value("SELECT 'plain'"), "plain")


def parameters():
    Item.objects.all().delete()
    Item.objects.bulk_create(Item(id=i, name=f"n{i}") for i in range(200))
    same(Item.objects.filter(name__startswith="n1", id__in=range(100, 150)).count(), 50)
    same(Item.objects.filter(id__lt=100).aggregate(models.Max("id"))["id__max"], 99)


def types():
    at = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=timezone.utc)
    name, text, data, doc, numbers, words = TYPES
    Kind.objects.all().delete()
    Kind.objects.create(id=1, t=text, b=data, j=doc, at=at, a=numbers, words=words, n=None)
    kind = Kind.objects.get(at=at, words__contains=["x"], j__a__0=1)
    same((kind.t, bytes(kind.b), kind.j, kind.at, kind.a, kind.words, kind.n),
         (text, data, doc, at, numbers, words, None))


def transactions():
    Item.objects.all().delete()
    with transaction.atomic():
        Item.objects.create(id=1, name="kept")
        try:
            with transaction.atomic():
                Item.objects.create(id=2, name="lost")
                raise KeyError
        except KeyError:
            pass
        transaction.on_commit(lambda: committed.append(1))
    with transaction.atomic():
        Item.objects.create(id=3, name="lost")
        transaction.set_rollback(True)
    same(list(Item.objects.values_list("id", flat=True)), [1])
    with transaction.atomic():
        same(Item.objects.select_for_update().get(id=1).name, "kept")


def prepared():
    for _ in range(30):
        same(Item.objects.get(id=1).name, "kept")
        same(Item.objects.filter(id=1).update(name="kept"), 1)


def copy():
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM item")
        with cursor.copy("COPY item FROM STDIN") as into:
            for i in range(1000):
                into.write_row((i, "x"))
        with cursor.copy("COPY item TO STDOUT") as out:
            same(sum(1 for _ in out.rows()), 1000)


def errors():
    Item.objects.all().delete()
    Item.objects.create(id=1, name="one")
    fails("23505", DatabaseError, sqlstate, lambda: Item.objects.create(id=1, name="again"))
    same(Item.objects.get(id=1).name, "one")
    fails("42601", DatabaseError, sqlstate, lambda: change("SELEC 1"))
    same(value("SELECT %s", ["usable"]), "usable")
    fails("23505", DatabaseError, sqlstate, lambda: User.objects.bulk_create([User(username="twice")] * 2))


def cancel():
    busy = connection.connection

    def soon():
        until("the statement runs", lambda: value(FIND_SLEEPER) == 1)
        busy.cancel()
        connection.close()

    thread = threading.Thread(target=soon)
    thread.start()
    fails("57014", DatabaseError, sqlstate, lambda: change(SLEEP))
    thread.join()
    same(value("SELECT 1"), 1)


def own_writes():
    Item.objects.all().delete()
    item = Item.objects.create(id=1, name="0")
    for i in range(100):
        item.name = str(i)
        item.save()
        same(Item.objects.get(id=1).name, str(i))
    user = User.objects.create(username="someone")
    user.groups.add(Group.objects.create(name="writers"))
    same(User.objects.filter(groups__name="writers").count(), 1)
    user.delete()


def settings():
    change("SET app.tenant = 't1'")
    for _ in range(20):
        same(value("SELECT current_setting('app.tenant')"), "t1")
        same(value("SELECT current_setting('TimeZone')"), "UTC")


def cursor():
    Item.objects.all().delete()
    Item.objects.bulk_create(Item(id=i, name="x") for i in range(1000))
    # A server-side cursor: WITH HOLD, outside a transaction.
    same(sum(item.id for item in Item.objects.iterator(chunk_size=100)), 499500)
    with transaction.atomic():
        same(sum(item.id for item in Item.objects.iterator(chunk_size=100)), 499500)


def read_only():
    with transaction.atomic():
        change("SET TRANSACTION READ ONLY")
        same(Item.objects.count(), 1000)
        try:
            with transaction.atomic():
                Item.objects.all().delete()
            raise AssertionError("it wrote")
        except DatabaseError as error:
            same(sqlstate(error), "25006")
    Item.objects.all().delete()


def pool():
    seen = []

    def work(start):
        for i in range(start, start + 20):
            Item.objects.create(id=i, name=str(i))
            seen.append(Item.objects.get(id=i).name == str(i))
            connection.close()

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 160, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same(seen, [True] * 160)


def replicas():
    connection.close()
    connection.close_pool()
    until("a replica serves", lambda: value(SERVED_BY) != PRIMARY)


committed = []
run([connect, simple, parameters, types, transactions, prepared, copy, errors, cancel, own_writes, settings,
     cursor, read_only, pool, replicas], missing=["large-objects", "notify", "pipeline", "two-phase"])
