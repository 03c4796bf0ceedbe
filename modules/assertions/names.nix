# Names: each once, and each that is named is there.
{ declared, lib, ... }:
let
  inherit (lib)
    attrNames
    concatMap
    concatMapStringsSep
    filter
    filterAttrs
    groupBy
    length
    optional
    unique
    ;
  inherit (declared)
    images
    networks
    templates
    vms
    ;
  names = map (entry: entry.name);

  twice =
    what: option: key: entries:
    map (
      name:
      "two ${what} are named `${name}`. Rename one of them, in `${option}` or in `settings.${key}`; modules that mean the same one say it under the same attribute name."
    ) (attrNames (filterAttrs (_: same: length same > 1) (groupBy (entry: entry.name) entries)));

  unknown =
    what: option: wanted: entries:
    let
      known = names entries;
      there =
        if known == [ ] then "none is declared" else concatMapStringsSep ", " (name: "`${name}`") known;
    in
    map (
      { by, name }:
      "${by} names the ${what} `${name}`, which is not declared. Declare it as `${option}.${name}`, or name another (${there})."
    ) (filter ({ name, ... }: !lib.elem name known) (unique wanted));

  # What a template says wrong is said once, not again for each of its VMs.
  machines =
    map (template: {
      by = "the template `${template.name}`";
      disk = template.disk or [ ];
      net = template.net or [ ];
    }) templates
    ++ map (vm: {
      by = "the VM `${vm.name}`";
      disk = vm.own.disk or [ ];
      net = vm.own.net or [ ];
    }) vms;
  named =
    key: get:
    concatMap (
      machine:
      concatMap (
        entry:
        optional (entry ? ${get}) {
          inherit (machine) by;
          name = entry.${get};
        }
      ) machine.${key}
    ) machines;
in
twice "networks" "networks" "network" networks
++ twice "images" "images" "image" images
++ twice "templates" "templates" "template.vm" templates
++ twice "VMs" "vms" "vm" vms
++ unknown "template" "templates" (concatMap (
  vm:
  optional (vm.own ? template) {
    by = "the VM `${vm.name}`";
    name = vm.own.template;
  }
) vms) templates
++ unknown "network" "networks" (named "net" "name") networks
++ unknown "image" "images" (named "disk" "image") images
