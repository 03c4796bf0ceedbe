{
  description = "A NixOS guest of Virshle";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    virshle = {
      # Where this template came from.
      url = "git+file:///path/to/virshle";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { nixpkgs, virshle, ... }:
    let
      system = "x86_64-linux";
    in
    {
      # `nix build` makes `result/nixos.img`, for the `path` of an image or a disk.
      packages.${system}.default = virshle.lib.mkGuestImage {
        pkgs = nixpkgs.legacyPackages.${system};
        modules = [ ./configuration.nix ];
      };

      # Inside the guest: `nixos-rebuild switch --flake .#guest`.
      nixosConfigurations.guest = nixpkgs.lib.nixosSystem {
        modules = [
          { nixpkgs.hostPlatform = system; }
          virshle.nixosModules.guest
          ./configuration.nix
        ];
      };
    };
}
