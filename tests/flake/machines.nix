# The hosts of the machine tests and of their specialisations, and the one that the flake's template begins, against
# the options of the module, for machines.rs.
{ lib }:
let
  inherit (lib) mkOption types;
  evaluate = import ../nix/host.nix { inherit lib; };
  pkgs = import ./nixpkgs {
    inherit lib;
    system = "x86_64-linux";
  };
  any = mkOption { type = types.anything; };

  # Of NixOS and of its machine tests, beyond what the module itself sets.
  nixos.options = {
    system = lib.genAttrs [
      "stateVersion"
      "switch"
    ] (_: any);
    virtualisation = lib.genAttrs [
      "cores"
      "diskSize"
      "memorySize"
    ] (_: any);
    specialisation = mkOption {
      type = types.attrsOf (
        types.submodule {
          options.configuration = mkOption { type = types.deferredModule; };
        }
      );
      default = { };
    };
  };

  outcome = modules: { inherit ((evaluate modules).outcome) refused settings; };
  image = _: "/nix/store/image";

  machine =
    test:
    let
      inherit (import (lib.head test.imports)) name nodes testScript;
      modules = [
        nixos
        test.defaults
        nodes.host
      ];
      inherit ((evaluate modules).options) specialisation;
    in
    {
      inherit name;
      script = testScript;
      hosts = {
        now = outcome modules;
      }
      // lib.mapAttrs (_: other: outcome (modules ++ [ other.configuration ])) specialisation.value;
    };
in
{
  tests = lib.mapAttrs (_: machine) (
    import ../nixos {
      pkgs = pkgs // {
        testers.runNixOSTest = lib.id;
      };
      self = {
        lib.mkGuestImage = image;
        nixosModules.default = { };
      };
    }
  );
  template = outcome [
    nixos
    ../../nix/templates/host/configuration.nix
    { _module.args.virshle.lib.mkGuestImage = image; }
  ];
}
