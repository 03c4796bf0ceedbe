//! `[[vm]]`: each as what it comes to with its template, and all of them beside each other.

use std::collections::HashMap;

use super::super::declared::{DeclaredVm, VmEntry};
use super::super::draft::Draft;
use super::super::file::Template;
use super::super::overlay;
use super::super::placed::Placed;
use super::{meant, template};
use crate::error::Result;
use crate::spec::{Name, OnRemove};

pub(super) fn check_all(draft: &Draft) -> Result<Vec<DeclaredVm>> {
    let templates: HashMap<&Name, &Placed<Template>> =
        draft.templates.iter().map(|template| (&template.entry.name, template)).collect();
    let mut vms = Vec::with_capacity(draft.vms.len());
    for vm in &draft.vms {
        let template = templates.get(&vm.entry.template).ok_or_else(|| {
            vm.wrong("template", format_args!("is `{}`, and there is no such `[[template.vm]]`", vm.entry.template))
                .hint(meant(&vm.entry.template, &draft.templates, "a `[[template.vm]]`"))
        })?;
        let effective = overlay::lay(vm, template)?;
        check_one(vm, &effective, draft)?;
        vms.push(overlay::declared(&vm.entry, effective.entry));
    }
    Ok(vms)
}

fn check_one(vm: &Placed<VmEntry>, effective: &Placed<Template>, draft: &Draft) -> Result<()> {
    template::check(effective, draft)?;
    if vm.entry.on_remove == OnRemove::Delete && effective.entry.protect {
        return Err(vm
            .wrong("on-remove", "is `delete` for a VM that is protected from it (`protect = true`)")
            .hint("remove one of the two"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{VM, run};
    use crate::config::load::of_text;
    use crate::spec::{Restart, Size};

    #[test]
    fn what_a_vm_says_comes_before_its_template() {
        let text =
            format!("{VM}\nvm = [{{ name = 'db', template = 'xs', vcpu = 4, vram = '4G', restart = 'always' }}]");
        let config = of_text(&text).unwrap();
        let vm = config.vm(&"db".parse().unwrap()).unwrap();
        assert_eq!((vm.template.name.as_str(), vm.template.vcpu, vm.template.vram), ("xs", 4, Size::gib(4)));
        assert_eq!((vm.template.restart, vm.template.disks.len()), (Restart::Always, 1));
        assert_eq!(config.templates[0].vcpu, 1);
    }

    #[test]
    fn templates_of_vms() {
        run([
            ("vm = [{ name = 'db', template = 'xs' }]".into(), "`vm[0].template` is `xs`", ""),
            (format!("{VM}\nvm = [{{ name = 'db', template = 'sx' }}]"), "line 2, column 33", "did you mean `xs`?"),
        ]);
    }
}
