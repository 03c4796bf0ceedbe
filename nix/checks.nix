# `nix flake check`: the sources, the package with its unit tests, the modules, and machines that run them.
{ pkgs, self }:
let
  inherit (pkgs) lib;
  package = self.packages.${pkgs.stdenv.hostPlatform.system}.default;

  # The checkout, held to what a command says of it.
  source =
    name: tools: command:
    pkgs.runCommand "virshle-${name}" { nativeBuildInputs = tools; } ''
      export HOME=$TMPDIR
      cd ${self}
      ${command}
      touch $out
    '';

  # A whole system, evaluated to its end and not built.
  evaluated =
    name: modules:
    let
      machine = {
        boot.loader.grub.enable = false;
        fileSystems."/".device = "/dev/vda";
        fileSystems."/".fsType = "ext4";
        system.stateVersion = "26.11";
      };
      system = pkgs.nixos (modules ++ [ machine ]);
    in
    pkgs.writeText "virshle-${name}" (
      builtins.unsafeDiscardStringContext system.config.system.build.toplevel.drvPath
    );
in
{
  inherit package;

  clippy = package.overrideAttrs (old: {
    pname = "${old.pname}-clippy";
    nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
    buildPhase = "cargo clippy --all-targets --locked --offline -- -D warnings";
    installPhase = "touch $out";
    doCheck = false;
    dontFixup = true;
  });

  rust-format = source "rust-format" [ pkgs.cargo pkgs.rustfmt ] "cargo fmt --check";
  nix-format = source "nix-format" [
    pkgs.nixfmt-rs
  ] "find . -name '*.nix' -exec nixfmt --check {} +";
  nix-unused = source "nix-unused" [ pkgs.deadnix ] "deadnix --fail .";

  module-host = evaluated "module-host" [
    self.nixosModules.default
    ./templates/host/configuration.nix
    { _module.args.virshle = self; }
  ];
  module-guest = evaluated "module-guest" [
    self.nixosModules.guest
    ./templates/guest/configuration.nix
  ];
}
// lib.mapAttrs' (name: lib.nameValuePair "machine-${name}") (
  import ../tests/nixos { inherit pkgs self; }
)
