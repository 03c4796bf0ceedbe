{
  description = "A host of virtual machines";

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
    {
      nixosConfigurations.host = nixpkgs.lib.nixosSystem {
        specialArgs = { inherit virshle; };
        modules = [
          virshle.nixosModules.default
          ./configuration.nix
          # The machine's own, as `cp -r /etc/nixos machine` brings it: its boot loader, disks and users.
          ./machine/configuration.nix
        ];
      };
    };
}
