# mod_nssmtpd. `make help` lists the targets. Knobs: CC=clang, WERROR=1, V=1, O=directory.

O       ?= build
OPT     ?= -O2 -g
MPMS    ?= event worker prefork
SECS    ?= 60
SANFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
quiet    = --no-print-directory

# What apxs and the apr config scripts say is asked once and kept in $(O)/config.mk. The targets
# that may install packages do so before they come here; all others only name what is missing.
ifneq ($(filter-out help clean stop deps run test lua-test san fuzz bench lint,$(or $(MAKECMDGOALS),all)),)
include $(O)/config.mk
endif

CSTD     = -std=gnu11 -fvisibility=hidden -fPIC
WARN     = -Wall -Wextra $(if $(WERROR),-Werror)
CPPFLAGS_ALL = -I. $(HTTPD_CPPFLAGS) $(LUA_CPPFLAGS) $(CPPFLAGS)
Q        = $(if $(V),,@echo '  $(1)  $@';)
COMPILE  = $(CC) $(CSTD) $(OPT) $(WARN) $(EXTRA) $(CPPFLAGS_ALL) $(CFLAGS)

SMTP    := $(wildcard smtp/*.c)
CLAMAV  := filters/clamav.c filters/signatures.c
SOURCES := $(wildcard mod_nssmtpd.c server/*.c relay/*.c lua/*.c) $(SMTP) \
           $(filter-out $(CLAMAV),$(wildcard filters/*.c))
MODULES  = $(O)/mod_nssmtpd.so $(O)/mod_nssmtpd_clamav.so
UNITS   := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
obj      = $(addprefix $(O)/obj/,$(1:.c=.o))

all: $(MODULES)                 ## build/mod_nssmtpd.so and build/mod_nssmtpd_clamav.so

$(O)/mod_nssmtpd.so: $(call obj,$(SOURCES))
	$(call Q,LD)$(CC) -shared $(EXTRA) $(LDFLAGS) -o $@ $^ -lcares -ljansson $(LUA_LIBS) $(LDLIBS)

# libclamav does not survive being unloaded at a restart, hence nodelete.
$(O)/mod_nssmtpd_clamav.so: $(call obj,$(CLAMAV))
	$(call Q,LD)$(CC) -shared $(EXTRA) -Wl,-z,nodelete $(LDFLAGS) -o $@ $^ -lclamav $(LDLIBS)

$(O)/obj/%.o: %.c $(O)/command
	@mkdir -p $(@D)
	$(call Q,CC)$(COMPILE) -MMD -MP -c -o $@ $<

# Changes when the compiler or a flag does, and then everything is built again.
$(O)/command: FORCE
	@mkdir -p $(O); echo '$(COMPILE)' | cmp -s - $@ || echo '$(COMPILE)' > $@

$(O)/config.mk: tools/config-mk
	@tools/install-deps --check build
	@mkdir -p $(O); tools/config-mk > $@.new && mv $@.new $@

units: $(addprefix $(O)/unit/,$(UNITS))
replays: $(addprefix $(O)/replay/,$(FUZZERS))
fuzzers: $(addprefix $(O)/fuzz/,$(FUZZERS))

$(O)/unit/%: $(O)/obj/tests/unit/%.o $(call obj,$(SMTP))
	@mkdir -p $(@D)
	$(call Q,LD)$(CC) $(EXTRA) -o $@ $^ -lcmocka -lcares $(APR_LIBS)

$(O)/replay/%: $(O)/obj/tests/fuzz/%.o $(O)/obj/tests/fuzz/replay.o $(call obj,$(SMTP))
	@mkdir -p $(@D)
	$(call Q,LD)$(CC) $(EXTRA) -o $@ $^ $(APR_LIBS)

$(O)/fuzz/%: $(O)/obj/tests/fuzz/%.o $(call obj,$(SMTP))
	@mkdir -p $(@D)
	$(call Q,LD)$(CC) $(EXTRA) -fsanitize=fuzzer -o $@ $^ $(APR_LIBS)

deps:                           ## install what building, running and testing need (root)
	@tools/install-deps build run test

run:                            ## private httpd: SMTP on 127.0.0.1:2525; DETACH=1 returns at once
	@tools/install-deps build run
	@$(MAKE) $(quiet) all
	@DETACH=$(DETACH) tools/run

stop:                           ## stop what `make run DETACH=1` started
	@tools/stop

test:                           ## unit tests, fuzz replays, and httpd suites on MPMS
	@tools/install-deps build run test
	@$(MAKE) $(quiet) all units
	@$(MAKE) $(quiet) O=build/asan OPT='-O1 -g' EXTRA='$(SANFLAGS)' replays
	@MPMS='$(MPMS)' tools/test $(T)

lua-test:                       ## the policies of conf/lua by plain Lua, with fake sessions
	@tools/install-deps test
	@prove --exec lua5.3 $(wildcard tests/lua/*.lua)

san:                            ## the same under AddressSanitizer and UBSan, MPM event
	@tools/install-deps build run test
	@$(MAKE) $(quiet) O=build/asan OPT='-O1 -g' EXTRA='$(SANFLAGS)' all units replays
	@BUILD=build/asan MPMS=event tools/test $(T)

fuzz:                           ## libFuzzer: make fuzz F=dot SECS=60
	@tools/install-deps build fuzz
	@test -f 'tests/fuzz/fuzz_$(F).c' || { \
	    echo 'make fuzz: name a target, F=X for tests/fuzz/fuzz_X.c. There are:' \
	    $(FUZZERS:fuzz_%=%) >&2; exit 1; }
	@$(MAKE) $(quiet) O=build/fuzz CC=clang OPT='-O1 -g' \
	    EXTRA='-fsanitize=fuzzer-no-link,address,undefined' build/fuzz/fuzz/fuzz_$(F)
	@mkdir -p build/fuzz/corpus/$(F) tests/fuzz/corpus/$(F)
	build/fuzz/fuzz/fuzz_$(F) -max_total_time=$(SECS) -artifact_prefix=build/fuzz/ \
	    build/fuzz/corpus/$(F) tests/fuzz/corpus/$(F)

bench:                          ## print the figures: make bench, or one: B='compare --works W1,W2'
	@tools/install-deps build run test bench
	@$(MAKE) $(quiet) all
	@BUILD='$(O)' MODULE='$(abspath $(O))/mod_nssmtpd.so' tools/bench $(B)

lint:                           ## the checks of tools/lint
	@tools/install-deps build lint
	@$(MAKE) $(quiet) build/config.mk
	@tools/lint

install: all                    ## into httpd's module directory; policies; .load and .conf on Debian
	install -d $(DESTDIR)$(LIBEXECDIR)
	install -m 644 $(MODULES) $(DESTDIR)$(LIBEXECDIR)
	@tools/install-conf "$(DESTDIR)" "$(LIBEXECDIR)"

clean:                          ## remove build/
	rm -rf build

help:                           ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 10

FORCE:
.PHONY: all units replays fuzzers deps run stop test lua-test san fuzz bench lint install clean help FORCE
.SECONDARY:
-include $(shell find $(O)/obj -name '*.d' 2>/dev/null)
