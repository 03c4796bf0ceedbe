# As much of nixpkgs as the flake's own files ask for, where only its `lib` is at hand. The settings of NixOS that they
# touch take anything: what NixOS makes of one is not known here.
{ lib, system }:
let
  inherit (lib) genAttrs mkOption types;

  settings = mkOption {
    type = types.lazyAttrsOf types.anything;
    default = { };
  };
  nixos.options =
    genAttrs [
      "boot"
      "documentation"
      "environment"
      "networking"
      "security"
      "system"
      "systemd"
    ] (_: settings)
    // {
      services = genAttrs [
        "cloud-init"
        "logind"
        "nginx"
        "openssh"
        "udev"
      ] (_: settings);
      # One of its settings follows from another.
      fileSystems = mkOption { type = types.attrsOf (types.lazyAttrsOf types.anything); };
    };
  evaluate =
    modules:
    lib.evalModules {
      modules = [ nixos ] ++ modules;
      specialArgs = { inherit pkgs; };
    };

  # A derivation is what it was asked for.
  derivation =
    arguments:
    arguments
    // {
      type = "derivation";
      outPath = "/nix/store/${arguments.name or arguments.pname}";
      overrideAttrs = change: derivation (arguments // change arguments);
    };
  programs = genAttrs [
    "cargo"
    "clippy"
    "coreutils"
    "deadnix"
    "installShellFiles"
    "nixfmt"
    "nixfmt-tree"
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
    callPackage =
      file: _:
      let
        make = import file;
      in
      make (builtins.intersectAttrs (builtins.functionArgs make) pkgs);
  };
in
pkgs
