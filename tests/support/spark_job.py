"""A program that uses Spark, in a process of its own: Spark leaves threads and warnings behind.

It reads what to do from its arguments, and prints a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["main"]


def rows_of(frame: Any, *columns: str) -> list[list[Any]]:
    return [[*row] for row in frame.select(*columns).collect()]


def in_two_stages(frame: Any, folder: Path) -> list[list[Any]]:
    """Collect the rows behind a shuffle. Each task of the second stage waits for `go-on`."""

    def wait(batches: Iterator[Any]) -> Iterator[Any]:
        (folder / f"second-stage-{os.getpid()}").touch()
        while not (folder / "go-on").exists():
            time.sleep(0.05)
        yield from batches

    shuffled = frame.select("account", "person").repartition(4, "person")
    return rows_of(shuffled.mapInPandas(wait, "account string, person string"), "account", "person")


def main(job: dict[str, Any], folder: Path) -> Any:
    """Do a job and return its result."""
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import spark_partition_id

    import altaprofiles.spark

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master(job.get("master", "local[4,9]"))
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
        "spark.driver.memory": "512m",
        **job.get("settings", {}),
    }.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    altaprofiles.spark.register(spark)
    results: dict[str, Any] = {}
    for name, (kind, options) in job["reads"].items():
        if kind == "read":
            frame = spark.read.format("altaprofiles").options(**options).load()
            frame = frame.withColumn("task", spark_partition_id())
            rows = rows_of(frame, "account", "person", "task")
            results[name] = {
                "tasks": len({task for *_, task in rows}),
                "schema": frame.schema.simpleString(),
                "plan": frame._jdf.queryExecution().toString(),  # noqa: SLF001
                "rows": [row for *row, _ in rows],
            }
        elif kind == "two stages":
            frame = spark.read.format("altaprofiles").options(**options).load()
            results[name] = in_two_stages(frame, folder)
        elif kind == "refused":
            try:
                spark.read.format("altaprofiles").options(**options).load().count()
            except Exception as error:
                results[name] = str(error)
        elif kind == "look_up":
            keys = spark.createDataFrame([(key,) for key in options.pop("keys")], "id string")
            frame = altaprofiles.spark.look_up(keys, "id", **options)
            results[name] = [row.asDict() for row in frame.collect()]
        else:
            stream = spark.readStream.format("altaprofiles").options(**options).load()
            query = (
                stream.writeStream.format("json")
                .option("path", str(folder / "stream"))
                .option("checkpointLocation", str(folder / "checkpoint"))
                .trigger(availableNow=True)
                .start()
            )
            query.awaitTermination()
            written = spark.read.json(str(folder / "stream"))
            results[name] = rows_of(written, "account", "person")
    spark.stop()
    return results


if __name__ == "__main__":
    done = main(json.loads(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write("RESULT " + json.dumps(done) + "\n")
