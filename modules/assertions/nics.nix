# What no two NICs can have: a MAC, an address, a port of the host.
{ declared, lib, ... }:
let
  inherit (lib)
    attrValues
    concatMap
    concatMapStringsSep
    filter
    groupBy
    head
    length
    optional
    unique
    ;
  readForward = import ../lib/forward.nix { inherit lib; };

  nics = concatMap (vm: map (nic: nic // { vm = vm.name; }) vm.net) declared.vms;

  owners =
    taken:
    let
      vms = unique (map (entry: entry.vm) taken);
    in
    if length vms == 1 then
      "two NICs of the VM `${head vms}` have"
    else
      "the VMs ${concatMapStringsSep " and " (name: "`${name}`") vms} have";

  shared = key: entries: filter (same: length same > 1) (attrValues (groupBy key entries));

  macs = map (
    same:
    "${owners same} the MAC `${lib.toLower (head same).mac}`. Leave `mac` out, and each has one that follows from its VM; a template's `mac` is that of all its VMs."
  ) (shared (nic: lib.toLower nic.mac) (filter (nic: nic ? mac) nics));

  addresses = map (
    same:
    "${owners same} the address `${(head same).address}` in the network `${(head same).name}`. Give each another, or leave `address` out for a free one; a template's `address` is that of all its VMs."
  ) (shared (nic: "${nic.name} ${nic.address}") (filter (nic: nic ? address) nics));

  forwards = concatMap (
    nic:
    concatMap (
      text:
      let
        read = readForward text;
      in
      optional (read != null) (
        read
        // {
          inherit text;
          inherit (nic) vm;
        }
      )
    ) (nic.ports or [ ])
  ) nics;
  meets = one: two: one.host == two.host || one.host == null || two.host == null;
  # Those of one port that meet another of it: two of different addresses do not.
  clashing =
    same:
    let
      those = filter (one: lib.count (meets one) same > 1) same;
    in
    optional (those != [ ]) those;
  ports = map (
    same:
    "${owners same} the port ${toString (head same).hostPort}/${(head same).protocol} of the host (${
      concatMapStringsSep ", " (port: "`${port.text}`") same
    }). Give each another port or another address of the host; a template's `ports` are those of all its VMs, and `ports = [ ]` in a VM empties them."
  ) (concatMap clashing (shared (port: "${toString port.hostPort}/${port.protocol}") forwards));
in
macs ++ addresses ++ ports
