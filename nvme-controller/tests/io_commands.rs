// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bring-up, Identify, queues, and the commands of the NVM command set.

mod harness;

use harness::{GUEST, MANAGER, NSID, Rig, id_of, pattern};
use nvme_core::wire::admin::{Identify, IdentifyStructure};
use nvme_core::wire::identify::{ControllerIdentity, NamespaceIdentity};
use nvme_core::wire::nvm::{Read, Write};
use nvme_core::wire::{Lba, Status};

#[test]
fn a_controller_comes_up_and_says_who_it_is() {
    let mut rig = Rig::new();
    for controller in [MANAGER, GUEST] {
        rig.enable(controller);
        let (entry, page) =
            rig.admin_data(controller, &Identify::new(IdentifyStructure::CONTROLLER), &[0; 4096]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let identity = ControllerIdentity::parse(&page).unwrap();
        assert_eq!(identity.controller, id_of(controller));
        assert_eq!(identity.is_manager(), controller == MANAGER);
        assert_eq!(identity.host_memory_preferred, 0);
        let command = Identify { namespace: NSID, ..Identify::new(IdentifyStructure::NAMESPACE) };
        let (entry, page) = rig.admin_data(controller, &command, &[0; 4096]);
        assert_eq!(entry.status(), Status::SUCCESS);
        let namespace = NamespaceIdentity::parse(&page).unwrap().unwrap();
        assert_eq!((namespace.blocks, namespace.block_bytes(), namespace.shared), (2048, 512, true));
    }
}

#[test]
fn what_is_written_is_read_back_through_every_shape_of_prps() {
    let mut rig = Rig::new();
    rig.enable(GUEST);
    rig.create_pair(GUEST, 1, 16);
    for (name, blocks) in
        [("one block", 1), ("a page", 8), ("two pages", 16), ("a list", 40), ("more than scratch", 200)]
    {
        let data = pattern(blocks, blocks as u8);
        let start = Lba::new(7);
        let (entry, _) = rig.io_data(GUEST, 1, &Write::new(NSID, start, blocks as u32), &data);
        assert_eq!(entry.status(), Status::SUCCESS, "{name}");
        let (entry, read) =
            rig.io_data(GUEST, 1, &Read::new(NSID, start, blocks as u32), &vec![0xEE; data.len()]);
        assert_eq!(entry.status(), Status::SUCCESS, "{name}");
        assert!(read == data, "{name}");
        assert!(rig.media(0, 7, blocks as u64) == data, "{name}");
    }
}
