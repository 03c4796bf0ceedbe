# Two commands do everything: `make demo` and `make test`.

.PHONY: help demo demo-clean test test-nested bench lint build

help:
	@echo 'make demo         a VM from a template, running and reachable, with each command shown'
	@echo 'make demo-clean   delete what the demo made'
	@echo 'make test         the whole suite, real programs included'
	@echo 'make test-nested  the same life cycle on real KVM, in a nested host (slow; see tests/nested/run)'
	@echo 'make bench        measured side by side with cloud-hypervisor, cp and virsh'
	@echo 'make lint         rustfmt and clippy'
	@echo 'make build        the program, target/release/v'

build:
	cargo build --release --locked

demo:
	tests/demo

demo-clean:
	tests/demo --clean

test:
	tests/run

test-nested:
	tests/nested/run

bench:
	tests/bench/run

lint:
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
