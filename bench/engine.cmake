quell_bench(engine_bench SOURCES engine_bench.cpp MODULES engine)
