# What the flake's outputs come to on a stand-in of nixpkgs, as JSON for outputs.rs.
{ lib }:
let
  flake = import ../../flake.nix;
  nixpkgs = {
    inherit lib;
    legacyPackages = lib.genAttrs lib.systems.flakeExposed (
      system: import ./nixpkgs { inherit lib system; }
    );
  };
  self = flake.outputs { inherit nixpkgs self; } // {
    outPath = "/nix/store/source";
  };

  names = lib.mapAttrs (_: lib.attrNames);
  pc = output: output.x86_64-linux;
  toolNames = map (tool: tool.name);
  guest =
    system: modules:
    (nixpkgs.legacyPackages.${system}.nixos ([ self.nixosModules.guest ] ++ modules)).config;
  image = self.lib.mkGuestImage {
    pkgs = pc nixpkgs.legacyPackages;
    modules = [ { networking.domain = "example"; } ];
  };
  # What the template of a guest begins.
  begun = (import ../../nix/templates/guest/flake.nix).outputs {
    nixpkgs = nixpkgs // {
      lib = lib // {
        nixosSystem = { modules }: (pc nixpkgs.legacyPackages).nixos modules;
      };
    };
    virshle = self;
  };
in
{
  outputs = lib.attrNames (removeAttrs self [ "outPath" ]);
  packages = names self.packages;
  checks = names self.checks;
  devShells = names self.devShells;
  formatter = lib.mapAttrs (_: formatter: formatter.nixfmtPackage.name) self.formatter;
  nixosModules = lib.attrNames self.nixosModules;
  package = {
    inherit ((pc self.packages).default) pname version src;
  };
  commands = lib.mapAttrs (_: check: {
    command = check.buildPhase or check.script;
    tools = toolNames check.nativeBuildInputs;
  }) (lib.getAttrs [ "clippy" "nix-format" "nix-unused" "rust-format" ] (pc self.checks));
  overlay = lib.attrNames (self.overlays.default (pc nixpkgs.legacyPackages) { });
  lib = lib.attrNames self.lib;
  files = lib.mapAttrs (_: template: lib.attrNames (builtins.readDir template.path)) self.templates;

  guests = {
    pc = guest "x86_64-linux" [ ];
    arm = guest "aarch64-linux" [ ];
    unseeded = guest "x86_64-linux" [ { virshle.guest.seed = "none"; } ];
    # NixOS itself, where nobody says anything.
    none = ((pc nixpkgs.legacyPackages).nixos [ ]).config;
    template = begun.nixosConfigurations.guest.config;
    template-image = (pc begun.packages).default.config;
    # What a person says comes first.
    own = guest "x86_64-linux" [
      {
        boot.loader.timeout = 5;
        fileSystems."/".fsType = "btrfs";
        networking.hostName = "own";
        services.openssh.enable = false;
      }
    ];
  };
  image = {
    inherit (image)
      bootSize
      copyChannel
      diskSize
      format
      name
      partitionTableType
      ;
    inherit (image.config.networking) domain;
    label = image.config.fileSystems."/".device;
  };
}
