"""A local system for the demo, the tests and the benchmarks: broker, Redis, processes, made-up data, chaos."""
