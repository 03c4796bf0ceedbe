# `[[image]]`: what disks are cloned from, by name.
{ lib, ... }:
let
  inherit (lib) literalExpression mkOption types;
  words = import ../lib/types.nix { inherit lib; };

  image =
    { name, ... }:
    {
      options = {
        name = words.named name "debian-12" "Its name, which a disk refers to.";
        path = mkOption {
          type = types.path;
          example = literalExpression ''"''${inputs.virshle.lib.mkGuestImage { inherit pkgs; }}/nixos.img"'';
          description = "The file: raw, qcow2, vmdk, vdi or vhdx. It is never written.";
        };
      };
    };
in
{
  options.services.virshle.images = mkOption {
    type = types.attrsOf (types.submodule image);
    default = { };
    example = {
      debian-12.path = "/srv/images/debian-12.raw";
    };
    description = "The images that disks are cloned from.";
  };
}
