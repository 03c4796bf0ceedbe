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

  count = mkOption {
    type = types.ints.positive;
    default = 1;
  };
  # Of the machines of NixOS's tests, and of systems that have others in them.
  nixos.options = {
    virtualisation = lib.genAttrs [
      "cores"
      "diskSize"
      "memorySize"
    ] (_: count);
    specialisation = mkOption {
      type = types.attrsOf (
        types.submodule {
          options.configuration = mkOption { type = types.deferredModule; };
        }
      );
      default = { };
    };
  };

  outcome = modules: { inherit ((evaluate modules).outcome) firewall refused settings; };

  # The image of a guest that is what NixOS takes.
  mkGuestImage =
    arguments:
    let
      image = import ../../nix/guest-image.nix (arguments // { inherit pkgs; });
    in
    builtins.deepSeq image.config image;

  machine =
    test:
    let
      inherit (test) name nodes testScript;
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

  # The host that the flake's template begins, without what the machine itself is.
  begun = (import ../../nix/templates/host/flake.nix).outputs {
    nixpkgs.lib.nixosSystem = lib.id;
    virshle = {
      lib = { inherit mkGuestImage; };
      nixosModules.default = { };
    };
  };
  inherit (begun.nixosConfigurations) host;
  there = module: !lib.isPath module || lib.pathExists module;
in
{
  tests = lib.mapAttrs (_: machine) (
    import ../nixos {
      inherit pkgs;
      self = {
        lib = { inherit mkGuestImage; };
        nixosModules.default = { };
      };
    }
  );
  template = outcome (
    [
      nixos
      { _module.args = host.specialArgs; }
    ]
    ++ lib.filter there host.modules
  );
}
