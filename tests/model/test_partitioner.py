"""Keys go where Kafka's clients send them."""

import re
from pathlib import Path

import numpy as np
from kafka.partitioner.default import murmur2 as reference

from model.partitioner import murmur2, partitions_of


def test_murmur2_is_kafkas():
    rng = np.random.default_rng(0)
    keys = [rng.bytes(int(size)) for size in rng.integers(0, 40, 2_000)]
    assert murmur2(keys).tolist() == [reference(key) & 0xFFFFFFFF for key in keys]


def test_crc32_is_librdkafkas():
    assert partitions_of(["123456789"], 1 << 32, "crc32").tolist() == [0xCBF43926]  # the check value of CRC-32


def test_the_partitions_that_the_documents_check_a_producer_with():
    text = (Path(__file__).parents[2] / "docs" / "integrate.md").read_text()
    keys, partitions = (re.search(rf"\| {row} \|(.*)\|\n", text)[1].split("|") for row in ("key", "partition"))
    assert partitions_of([key.strip(" `") for key in keys], 4).tolist() == [int(one) for one in partitions]
