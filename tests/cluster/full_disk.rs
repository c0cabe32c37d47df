//! A leader's disk fills up: it leaves office and says why, the others go on, nothing that was
//! acknowledged is lost, and once there is room it takes part again.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use medic_proto::v1 as pb;

use super::support::{LOOK, PATIENCE, World};

/// Size of the disk: a fresh node takes less, and filling it takes no time.
const DISK: &str = "size=48m";
/// The node whose disk it is.
const VICTIM: u64 = 2;

/// A file system of its own for one folder. Gone when dropped.
struct Disk {
    folder: PathBuf,
    mounted: bool,
}

impl Disk {
    fn mount(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "medic-test"])
            .arg(folder)
            .output()
            .expect("mount(8) is installed");
        assert!(
            output.status.success(),
            "this test needs a small file system of its own and may not mount one at {}: {}; run it as root, in a container with CAP_SYS_ADMIN",
            folder.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Self { folder: folder.to_owned(), mounted: true }
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Takes all room there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        for size in [1 << 20, 4_096, 1] {
            let block = vec![7; size];
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("filling the disk: {error}"),
                }
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::mem::take(&mut self.mounted) {
            drop(Command::new("umount").arg("--lazy").arg(&self.folder).status());
        }
    }
}

/// A small thing that can be acknowledged and looked up.
fn silence(number: usize) -> String {
    format!(
        "apiVersion: medic/v1\nkind: Silence\nmetadata: {{name: quiet-{number}}}\nspec:\n  match: ['service=\"nobody\"']\n  startsAt: 2098-01-01T00:00:00Z\n  endsAt: 2099-01-01T00:00:00Z\n  comment: {}\n",
        "x".repeat(1_000)
    )
}

/// Applies one, wherever there is a leader; whether it was acknowledged.
async fn applied(world: &World, number: usize) -> bool {
    let Ok(mut client) = world.cluster.client("admin").await else { return false };
    let request = pb::ApplyManifestsRequest { text: silence(number), ..Default::default() };
    client.manifests().apply(request).await.is_ok()
}

/// The numbers of those that a node holds.
async fn held(world: &World, node: u64) -> Vec<usize> {
    let mut client = world.cluster.client_of(node, "admin").await.unwrap();
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request =
            pb::ListManifestsRequest { kind: "Silence".into(), page_token, ..Default::default() };
        let page = client.manifests().list(request).await.unwrap().into_inner();
        let number = |name: &str| -> Option<usize> { name.strip_prefix("quiet-")?.parse().ok() };
        found.extend(page.manifests.iter().filter_map(|manifest| number(&manifest.name)));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

async fn lead(world: &World, node: u64) {
    world
        .until("the node with the small disk leads", || async {
            if world.cluster.leader().await.is_ok_and(|leader| leader == node) {
                return true;
            }
            if let Ok(mut client) = world.cluster.client("admin").await {
                let request = pb::TransferLeadershipRequest { node, ..Default::default() };
                drop(client.cluster().transfer_leadership(request).await);
            }
            false
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_is_full_leaves_and_comes_back_and_nothing_is_lost() {
    let mut disk = None;
    let mut world = World::start_with(|options| {
        disk = Some(Disk::mount(&options.dir.join(format!("data/node-{VICTIM}"))));
    })
    .await;
    let disk = disk.unwrap();
    lead(&world, VICTIM).await;
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        world.until("a healthy cluster takes commands", || applied(&world, number)).await;
        acknowledged.push(number);
    }

    disk.fill();
    let deadline = Instant::now() + PATIENCE;
    let mut number = 20;
    while !world.cluster.node_mut(VICTIM).unwrap().ended() {
        assert!(Instant::now() < deadline, "the node with the full disk goes on");
        if applied(&world, number).await {
            acknowledged.push(number);
        }
        number += 1;
        tokio::time::sleep(LOOK).await;
    }
    let said = world.log(&format!("node-{VICTIM}"));
    let last = said.lines().last().unwrap_or_default();
    assert!(
        last.contains("this node can no longer serve") && last.contains("the disk is full"),
        "its last words say what is wrong: {last}"
    );
    world
        .until("another leads", || async {
            world.cluster.leader().await.is_ok_and(|leader| leader != VICTIM)
        })
        .await;
    for number in number..number + 20 {
        world.until("the others take commands", || applied(&world, number)).await;
        acknowledged.push(number);
    }

    disk.make_room();
    world.cluster.node_mut(VICTIM).unwrap().start().unwrap();
    world.agree().await;
    for node in 1..=3 {
        let held = held(&world, node).await;
        let lost: Vec<_> = acknowledged.iter().filter(|number| !held.contains(number)).collect();
        assert!(lost.is_empty(), "node-{node} has lost {lost:?}");
    }
    world.cluster.stop().await.unwrap();
}
