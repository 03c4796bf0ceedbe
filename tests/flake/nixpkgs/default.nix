# As much of nixpkgs as the flake's own files ask for, where only its `lib` is at hand.
{ lib, system }:
let
  inherit (lib) genAttrs mkOption types;

  evaluate =
    modules:
    lib.evalModules {
      modules = [ ../../nix/nixos.nix ] ++ modules;
      specialArgs = { inherit pkgs; };
    };

  # A derivation is what it was asked for.
  derivation =
    arguments:
    arguments
    // {
      type = "derivation";
      outPath = "/nix/store/${arguments.name or arguments.pname}";
      override = changed: derivation (arguments // changed);
      overrideAttrs = change: derivation (arguments // change arguments);
    };
  programs = genAttrs [
    "cargo"
    "clippy"
    "coreutils"
    "deadnix"
    "htop"
    "installShellFiles"
    "nixfmt-rs"
    "nixfmt-tree"
    "openvswitch"
    "rustfmt"
    "util-linux"
  ] (name: derivation { inherit name; });

  pkgs = programs // {
    path = ./.;
    # A source is the names of what goes into it.
    lib = lib // {
      fileset = {
        unions = map (
          path:
          assert builtins.pathExists path;
          baseNameOf path
        );
        toSource = { fileset, ... }: fileset;
      };
    };
    stdenv = {
      hostPlatform = lib.systems.elaborate system;
      buildPlatform.canExecute = _: true;
    };
    rustPlatform.buildRustPackage = derivation;
    runCommand =
      name: environment: script:
      derivation (environment // { inherit name script; });
    nixos = evaluate;
    # What is asked for, and none of the machines.
    testers.runNixOSTest =
      test:
      let
        asked = type: mkOption { inherit type; };
        options = {
          defaults = asked types.deferredModule;
          globalTimeout = asked types.int;
          name = asked types.str;
          nodes = asked (types.lazyAttrsOf types.deferredModule);
          testScript = asked types.str;
        };
      in
      (lib.evalModules {
        modules = [
          test
          { inherit options; }
        ];
      }).config;
    callPackage =
      file: _:
      let
        make = import file;
      in
      make (builtins.intersectAttrs (builtins.functionArgs make) pkgs);
  };
in
pkgs
