# The settings as `v` reads them: networks with what they are by default, and each VM with its
# template below it.
{ lib }:
let
  inherit (lib)
    any
    filter
    findFirst
    imap0
    listToAttrs
    nameValuePair
    take
    ;

  byName = entries: listToAttrs (map (entry: nameValuePair entry.name entry) entries);

  network =
    entry:
    let
      type = entry.type or "ovs";
      asks = any (key: entry ? ${key}) [
        "domain"
        "dhcp"
        "isolated"
        "mtu"
        "nat"
        "subnet"
        "subnet6"
        "uplink"
      ];
      bridge = entry.bridge or "vsbr0";
    in
    entry
    // rec {
      inherit bridge type;
      mayBeKept = type != "user" && entry.create or asks;
      # This host is its router, DHCP and DNS.
      served = mayBeKept && entry ? subnet && !(entry ? uplink);
      device = if entry ? vlan then "${bridge}.${toString entry.vlan}" else bridge;
    };

  # Each with the number that it is of those of its name.
  numbered =
    entries:
    imap0 (
      index: entry:
      entry
      // {
        number = lib.count (other: other.name == entry.name) (take index entries);
      }
    ) entries;
  same = one: two: one.name == two.name && one.number == two.number;

  # The template's entries with what the VM says laid over them, then those that are the VM's own.
  lay =
    below: above:
    let
      lower = numbered below;
      upper = numbered above;
    in
    map (entry: removeAttrs entry [ "number" ]) (
      map (entry: entry // findFirst (same entry) { } upper) lower
      ++ filter (entry: !any (same entry) lower) upper
    );
in
settings:
let
  # What `settings` says wrong is for `v` to refuse, with its place.
  named = filter (entry: entry ? name);
  networks = map network (named (settings.network or [ ]));
  images = named (settings.image or [ ]);
  templates = named (settings.template.vm or [ ]);
  templateOf = byName templates;
  networkOf = byName networks;

  nic =
    entry:
    let
      known = networkOf.${entry.name} or null;
      byType = {
        ovs = "vhost";
        bridge = "tap";
        user = "user";
      };
    in
    entry
    // {
      network = known;
      link =
        if entry ? type then
          # `type.tap = { }` is `type = "tap"`.
          if lib.isAttrs entry.type then lib.head (lib.attrNames entry.type ++ [ null ]) else entry.type
        else if known == null then
          null
        else
          byType.${known.type} or null;
    };

  effective =
    vm:
    let
      template = templateOf.${vm.template or ""} or { };
    in
    template
    // vm
    // {
      # What is its own, and not its template's.
      own = vm;
      disk = lay (named (template.disk or [ ])) (named (vm.disk or [ ]));
      net = map nic (lay (named (template.net or [ ])) (named (vm.net or [ ])));
    };
in
{
  inherit images networks templates;
  vms = map effective (named (settings.vm or [ ]));
}
