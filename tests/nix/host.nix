# A host for the module to be evaluated on: the options of NixOS that it sets, without NixOS, and
# packages that are only names. `evaluate modules` is what they come to.
{ lib }:
let
  inherit (lib) mkOption types;

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

  any =
    default:
    mkOption {
      type = types.anything;
      inherit default;
    };
  list = mkOption {
    type = types.listOf types.anything;
    default = [ ];
  };
  sets = mkOption {
    type = types.attrsOf types.anything;
    default = { };
  };

  stubs.options = {
    assertions = list;
    warnings = list;
    boot.kernel.sysctl = sets;
    boot.kernelParams = list;
    environment.etc = sets;
    environment.pathsToLink = list;
    environment.systemPackages = list;
    networking.nftables.enable = any false;
    networking.firewall = {
      allowedTCPPorts = list;
      allowedUDPPorts = list;
      extraForwardRules = mkOption {
        type = types.lines;
        default = "";
      };
      interfaces = sets;
    };
    system.activationScripts = sets;
    systemd.packages = list;
    systemd.services = sets;
    systemd.sockets = sets;
    systemd.tmpfiles.settings = sets;
    users.groups = sets;
    users.users = sets;
    virtualisation.vswitch.enable = any false;
    virtualisation.vswitch.package = any pkgs.openvswitch;
  };
in
modules:
let
  host = lib.evalModules {
    modules = [
      ../../modules
      stubs
    ]
    ++ modules;
    specialArgs = { inherit pkgs; };
  };
  inherit (host) config;
  cfg = config.services.virshle;
in
{
  inherit (host) options;
  outcome = {
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
