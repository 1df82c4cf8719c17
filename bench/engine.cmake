quell_bench(engine_bench SOURCES engine_bench.cpp MODULES engine)
# Not a timing: what methods make of models.
quell_bench(quality_bench SOURCES quality/quality.cpp quality/plot.cpp MODULES pipeline report)
