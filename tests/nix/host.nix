# A host for the module to be evaluated on: the options of NixOS that it sets, without NixOS, and
# packages that are only names. `evaluate modules` is what they come to, where NixOS takes all that they say.
{ lib }:
let
  inherit (lib) types;

  package =
    name:
    let
      self = {
        type = "derivation";
        inherit name;
        outPath = "/nix/store/${name}";
        meta.mainProgram = if name == "virshle" then "v" else name;
        fd = self;
      };
    in
    self;

  pkgs =
    lib.genAttrs [
      "OVMF-cloud-hypervisor"
      "cloud-hypervisor"
      "dnsmasq"
      "iproute2"
      "nftables"
      "openvswitch"
      "openvswitch-dpdk"
      "passt"
      "qemu_kvm"
      "virshle"
    ] package
    // {
      stdenv.hostPlatform.isx86_64 = true;
      formats.toml = _: {
        type = types.toml;
        # The path of a file that is never made holds what would be in it.
        generate = name: value: package "${name}:${builtins.toJSON value}";
      };
      runCommand =
        name: environment: script:
        package "${builtins.hashString "sha256" (builtins.toJSON environment + script)}-${name}"
        // {
          inherit script;
        };
    };
in
modules:
let
  host = lib.evalModules {
    modules = [
      ../../modules
      ./nixos.nix
    ]
    ++ modules;
    specialArgs = { inherit pkgs; };
  };
  inherit (host) config;
  cfg = config.services.virshle;
in
{
  inherit (host) options;
  outcome = builtins.deepSeq config {
    refused = map (one: one.message) (lib.filter (one: !one.assertion) config.assertions);
    inherit (config) warnings;
    inherit (cfg) settings;
    inherit (cfg.configFile) script;
    inherit (config.boot) kernelParams;
    inherit (config.boot.kernel) sysctl;
    inherit (config.networking) firewall;
    inherit (config.system) activationScripts;
    inherit (config.systemd) services sockets;
    inherit (config.users) groups users;
    etc = lib.mapAttrs (_: file: toString file.source) config.environment.etc;
    packages = map (package: package.name) config.environment.systemPackages;
    tmpfiles = config.systemd.tmpfiles.settings;
    vswitch = {
      inherit (config.virtualisation.vswitch) enable;
      package = config.virtualisation.vswitch.package.name;
    };
  };
}
