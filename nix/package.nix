{
  lib,
  stdenv,
  rustPlatform,
  installShellFiles,
  coreutils,
  util-linux,
}:
let
  inherit (lib.importTOML ../Cargo.toml) package;
in
rustPlatform.buildRustPackage {
  pname = package.name;
  inherit (package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      ../.clippy.toml
      ../rustfmt.toml
      ../src
      ../tests
      ../templates
      ../packaging
      ../public
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [ installShellFiles ];

  # The others start virtual machines and switches: `make test`.
  cargoTestFlags = [ "--lib" ];
  # Nor do these have in the sandbox what they run or read: /bin/sleep and its like, /sys, users.
  checkFlags = map (test: "--skip=${test}") [
    "disk::vendor::tests::what_is_added_is_used_by_a_rule_that_a_person_may_empty"
    "host::descriptors::tests::what_is_no_plain_file"
    "host::gate::tests"
    "host::process::tests"
    "host::user::tests::users"
    "hypervisor::cloud_hypervisor::contract::a_program_that_dies_at_once_is_seen_at_once"
    "hypervisor::qemu::version::tests::a_program_that_is_no_qemu"
    "network::dnsmasq::hosts::tests::a_signal_that_was_not_sent_is_sent_by_the_next"
    "vm::alter::tests::it_becomes_what_the_template_says"
  ];

  postInstall = ''
    ln -s v $out/bin/virshle
    install -Dm644 -t $out/lib/systemd/system packaging/systemd/*
    install -Dm644 -t $out/lib/sysusers.d packaging/sysusers.d/*
    install -Dm644 -t $out/lib/tmpfiles.d packaging/tmpfiles.d/*
    substituteInPlace $out/lib/systemd/system/*.{service,socket} \
      --replace-quiet /usr/bin/v $out/bin/v \
      --replace-quiet ExecStartPre=install ExecStartPre=${coreutils}/bin/install \
      --replace-quiet /bin/kill ${util-linux}/bin/kill
  ''
  + lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
    installShellCompletion --cmd v \
      --bash <($out/bin/v completions bash) \
      --zsh <($out/bin/v completions zsh) \
      --fish <($out/bin/v completions fish)
    $out/bin/v man --dir man
    installManPage man/*
  '';

  meta = {
    inherit (package) description;
    license = lib.licenses.mit;
    mainProgram = "v";
    platforms = lib.platforms.linux;
  };
}
