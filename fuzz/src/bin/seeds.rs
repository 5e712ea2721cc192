// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the seeds into the committed corpus.

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = nvme_fuzz::seeds::all(&root.join("../nvme-core/tests/vectors"));
    let count = seeds.len();
    for (target, name, bytes) in seeds {
        let folder = root.join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    println!("{count} seeds written");
    Ok(())
}
