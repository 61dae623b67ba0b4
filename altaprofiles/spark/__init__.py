"""Spark 4 reads people: a data source, and bulk lookups of a column. Needs the extra `spark`.

Worth it where a lake or many accounts need a cluster anyhow. One machine is enough for one account,
whose few slots are what takes the time: `Session.export` is then simpler, and resumes.

- Credentials are read on the executors, from the environment or the credentials file. They are no
  options, which stand in plans, logs and Spark's pages.
- A person comes with each of the windows and events that have them. To keep one row:
  `df.dropDuplicates(["account", "person"])`.
- Each action asks the service again. Write the rows to a table, and go on from there.
- A task that is retried begins its chains again, and its rows count once. With speculation, each
  copy of a task adds its requests to those in flight.
"""

from .lookups import look_up
from .source import register

__all__ = ["look_up", "register"]
