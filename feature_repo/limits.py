"""What an id and a time of a click may be, wherever the click comes from, and what a whole day is."""

ID_LENGTH = 256
EARLIEST_MS = 631_152_000_000  # 1990-01-01: an older "click" is a unit mistake (seconds or microseconds sent as ms)
LATEST_MS = 4_102_444_800_000  # 2100-01-01: likewise
NOT_A_TIME = "must be whole milliseconds since 1970 (UTC), of the years 1990 to 2099"
WEEK = 7
QUIET_MS = 3_600_000  # a day that ends so much earlier than each of the week before has not ended yet
