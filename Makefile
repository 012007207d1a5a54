# SPDX-License-Identifier: MIT
# A thin front for CMake: installs what is missing for the target, builds, runs. `make help` lists the targets.

BUILD      ?= build
BUILD_TYPE ?= Release
JOBS       ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX     ?= /usr/local

DEBS_BUILD = cmake gcc libc6-dev make pkg-config zlib1g-dev libssl-dev libcurl4-openssl-dev libjansson-dev libpcre2-dev libutf8proc-dev
DEBS_TEST  = libcmocka-dev python3
DEBS_LINT  = clang-format clang-tidy cppcheck shellcheck
DEBS_FUZZ  = clang libclang-rt-dev
DEBS_ARM   = gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user

comma := ,
DEMO = $(BUILD)/demo
BIN  = $(BUILD)/bin

.PHONY: all help build demo check check-release check-asan check-tsan check-aarch64 lint format fuzz bench install clean

all: build

help:
	@echo 'make          build everything into $(BUILD)/bin'
	@echo 'make demo     take the shipped checkpoint through the whole pipeline and print a story'
	@echo 'make check    run every test, plain, under sanitizers, and for 64-bit ARM in an emulator'
	@echo 'make install  install tools, library and header below PREFIX=$(PREFIX)'
	@echo 'make lint     clang-format, clang-tidy, cppcheck, shellcheck'
	@echo 'make fuzz     fuzz each target for FUZZ_SECONDS (default 60); needs clang'
	@echo 'make bench    time the offline tools on a checkpoint of the 2B-4T shape (needs 8 GB of disk)'
	@echo 'make format   apply clang-format'
	@echo 'Missing Debian packages are installed by apt-get, with sudo where needed; if any would have to go for them, nothing is done.'

# $(call need,PACKAGES): installs what is missing, and says so.
define need
	@tests/packages.sh $(1)
endef

# $(call configure_and_build,FOLDER,EXTRA CMAKE OPTIONS)
define configure_and_build
	@mkdir -p $(1)
	@cmake -S . -B $(1) -DCMAKE_BUILD_TYPE=$(BUILD_TYPE) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(2) >$(1)/cmake.log 2>&1 || { cat $(1)/cmake.log; exit 1; }
	@grep -- '-- bnt:' $(1)/cmake.log
	@cmake --build $(1) -j $(JOBS) -- --no-print-directory
endef

# With the tests where they can be built; only the targets that run them install what they need.
TESTS = $(if $(shell pkg-config --exists cmocka 2>/dev/null && command -v python3),ON,OFF)
build:
	$(call need,$(DEBS_BUILD))
	$(call configure_and_build,$(BUILD),-DBNT_TESTS=$(TESTS))

demo: build
	@mkdir -p $(DEMO)
	@echo '$$ bnt-convert tests/data/fairy-6m | bnt-pack -o $(DEMO)/fairy-6m.bnt'
	@$(BIN)/bnt-convert tests/data/fairy-6m | $(BIN)/bnt-pack -o $(DEMO)/fairy-6m.bnt
	@echo '$$ bnt-verify $(DEMO)/fairy-6m.bnt --source tests/data/fairy-6m'
	@$(BIN)/bnt-verify $(DEMO)/fairy-6m.bnt --source tests/data/fairy-6m
	@echo '$$ bnt-run $(DEMO)/fairy-6m.bnt -p "Once upon a time" --echo --temp 0.7 --top-p 0.9 --seed 4 -n 200'
	@$(BIN)/bnt-run $(DEMO)/fairy-6m.bnt -p "Once upon a time" --echo --temp 0.7 --top-p 0.9 --seed 4 -n 200

# The ARM kernels are tested on every machine: in an emulator where the processor is another.
EMULATED := $(if $(filter x86_64,$(shell uname -m)),aarch64)

# Each of them ends with ctest's count, and goes on to the next if it fails; the last line adds them up.
STAGES = release asan tsan $(EMULATED)
check:
	@rm -f $(STAGES:%=$(BUILD)/%/ctest.log) $(BUILD)/ctest.log
	@for stage in $(STAGES); do $(MAKE) --no-print-directory check-$$stage || echo "make: check-$$stage has failed; going on"; done
	@tests/count.sh $(BUILD) $(patsubst %,$(BUILD)/%,$(filter-out release,$(STAGES)))

check-release:
	$(call need,$(DEBS_BUILD) $(DEBS_TEST))
	$(call configure_and_build,$(BUILD),-DBNT_WERROR=ON -DBNT_TESTS=ON)
	cd $(BUILD) && ctest --output-on-failure --timeout 1200 -O ctest.log

check-asan:
	$(call need,$(DEBS_BUILD) $(DEBS_TEST))
	$(call configure_and_build,$(BUILD)/asan,-DBNT_WERROR=ON -DBNT_SANITIZE=address$(comma)undefined)
	cd $(BUILD)/asan && ctest --output-on-failure --timeout 1200 -O ctest.log

# Threads: the tests that start several.
check-tsan:
	$(call need,$(DEBS_BUILD) $(DEBS_TEST))
	$(call configure_and_build,$(BUILD)/tsan,-DBNT_WERROR=ON -DBNT_SANITIZE=thread)
	cd $(BUILD)/tsan && ctest --output-on-failure --timeout 1200 -O ctest.log -R 'unit/test_(session|generate|sample|shortlist|ternary|kernels)|cli/test_(fetch|pack)'

# 64-bit ARM, cross-compiled and run by qemu-user, compared with this machine's tools. All but what would take minutes there.
ARM_ROOT = $(abspath $(BUILD))/aarch64/root
check-aarch64: build
	$(call need,$(DEBS_BUILD) $(DEBS_TEST) $(DEBS_ARM))
	@tests/aarch64.sh $(ARM_ROOT)
	$(call configure_and_build,$(BUILD)/aarch64,-DBNT_WERROR=ON -DBNT_FETCH=OFF -DCMAKE_TOOLCHAIN_FILE=tests/aarch64.cmake -DBNT_AARCH64_ROOT=$(ARM_ROOT) -DBNT_NATIVE_BIN=$(abspath $(BUILD))/bin)
	cd $(BUILD)/aarch64 && ctest --output-on-failure --timeout 1200 -O ctest.log -E 'unit/test_(shortlist|verify_bits)'

C_FILES  = $(shell git ls-files '*.c' '*.h')
SH_FILES = $(shell git ls-files '*.sh') .ci/run

lint:
	$(call need,$(DEBS_BUILD) $(DEBS_TEST) $(DEBS_LINT))
	$(call configure_and_build,$(BUILD)/lint,-DBNT_WERROR=ON -DCMAKE_EXPORT_COMPILE_COMMANDS=ON)
	clang-format --dry-run --Werror $(C_FILES)
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr --suppress=missingIncludeSystem \
	  -I. -DBNT_VERSION='""' -j $(JOBS) formats convert pack verify runtime
	clang-tidy --quiet -p $(BUILD)/lint $(filter-out tests/% runtime/kernels/kernel_%,$(filter %.c,$(C_FILES)))
	shellcheck $(SH_FILES)

format:
	clang-format -i $(C_FILES)

FUZZ_SECONDS ?= 60
fuzz:
	$(call need,$(DEBS_BUILD) $(DEBS_TEST) $(DEBS_FUZZ))
	CC=clang cmake -S . -B $(BUILD)/fuzz -DBNT_FUZZ=ON -DBNT_SANITIZE=address,undefined >/dev/null
	cmake --build $(BUILD)/fuzz -j $(JOBS) -- --no-print-directory
	for target in $(notdir $(basename $(wildcard tests/fuzz/fuzz_*.c))); do \
	  mkdir -p $(BUILD)/fuzz/corpus/$$target && \
	  $(BUILD)/fuzz/bin/$$target -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048 \
	    $(BUILD)/fuzz/corpus/$$target tests/fuzz/corpus/$$target || exit 1; done

bench: build
	tests/bench/offline.sh $(BUILD)

install: build
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD)
