{
  description = "Turns a template in a TOML file into a running, reachable virtual machine";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      eachSystem = make: nixpkgs.lib.genAttrs systems (system: make nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      overlays.default = final: _: {
        virshle = final.callPackage ./nix/package.nix { };
      };

      nixosModules = {
        default =
          { lib, pkgs, ... }:
          {
            imports = [ ./modules ];
            services.virshle.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
          };
        guest = ./modules/guest;
      };

      lib.mkGuestImage = import ./nix/guest-image.nix;

      templates = rec {
        default = host;
        host = {
          path = ./nix/templates/host;
          description = "A NixOS host of virtual machines, one of them a NixOS guest";
        };
        guest = {
          path = ./nix/templates/guest;
          description = "A NixOS guest, and the image that it starts from";
        };
      };

      checks = eachSystem (pkgs: import ./nix/checks.nix { inherit pkgs self; });

      devShells = eachSystem (pkgs: {
        default = import ./nix/shell.nix { inherit pkgs; };
      });

      formatter = eachSystem (pkgs: pkgs.nixfmt-tree);
    };
}
