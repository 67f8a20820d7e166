//! podman and buildah read the archives and the registry's contents that we write, and we read theirs.
//!
//! Their storage is below the engine's folder, and they run nothing but steps of a build in a changed root.

use crate::images::registry_on;
use anyhow::{Result, ensure};
use pintle_e2e::Engine;

/// Both programs with a storage of their own, and an image with all that layers can say: a file, a hard link, a
/// symbolic one, an owner, a removal.
const PREPARED: &str = r#"
place=$PWD/others; mkdir -p $place; cd $place
cat > containers.conf <<END
[engine]
lock_type = "file"
events_logger = "none"
cgroup_manager = "cgroupfs"
tmp_dir = "$place/tmp"
network_config_dir = "$place/nets"
volume_path = "$place/volumes"
static_dir = "$place/static"
END
cat > storage.conf <<END
[storage]
driver = "vfs"
graphroot = "$place/root"
runroot = "$place/runroot"
END
export CONTAINERS_CONF=$place/containers.conf CONTAINERS_STORAGE_CONF=$place/storage.conf HOME=$place XDG_RUNTIME_DIR=
mkdir -p $place/docker; echo '{}' > $place/docker/config.json; export DOCKER_CONFIG=$place/docker
insecure=--tls-verify=false registry=127.0.0.1:5007
"#;

const ARCHIVES: &str = r#"
cat > Dockerfile <<END
FROM e2e/busybox:1
RUN echo kept > /kept && ln /kept /hard && ln -s kept /soft && chown 7:8 /kept && rm /bin/httpd
CMD ["cat","/hard"]
END
docker build -q -t others/ours:1 . > /dev/null
docker save -o ours.tar others/ours:1
podman load -q -i ours.tar
test "$(podman image inspect -f 'sha256:{{.Id}}' others/ours:1)" = "$(docker image inspect -f '{{.Id}}' others/ours:1)"
podman save -q --format docker-archive -o docker.tar others/ours:1
podman save -q --format oci-archive -o oci.tar others/ours:1
podman save -q --format oci-dir -o oci others/ours:1
tar -C oci -cf layout.tar .
id=$(docker image inspect -f '{{.Id}}' others/ours:1)
for archive in docker oci layout; do
    docker rmi -f others/ours:1 > /dev/null
    docker load -i $archive.tar | grep -x 'Loaded image: others/ours:1'
    test "$(docker run --rm others/ours:1)" = kept
done
# The other forms are other manifests of the same configuration.
test "$(docker image inspect -f '{{.Id}}' others/ours:1)" = "$id"
docker save -o again.tar others/ours:1
skopeo --insecure-policy copy -q docker-archive:again.tar oci:copied:1
buildah from -q --name archived docker-archive:ours.tar
buildah from -q --name laid oci:copied:1
for made in archived laid; do
    # What it passes on of a command's output may be lost on a busy machine, so it is written to a file.
    buildah run --isolation chroot $made -- sh -c 'exec > /seen; cat /hard /soft; stat -c %u:%g-%h /kept; test -e /bin/httpd || echo gone'
    printf 'kept\nkept\n7:8-2\ngone\n' | cmp - "$(buildah mount $made)/seen"
    buildah umount $made > /dev/null
    buildah run --isolation chroot $made -- sh -c 'echo more > /more; rm /soft /seen'
    buildah config --cmd 'cat /more' --label by=buildah $made
done
buildah commit -q --format docker archived docker-archive:theirs.tar:others/theirs:docker
buildah commit -q --format oci laid oci-archive:theirs.oci:others/theirs:oci
for theirs in theirs.tar theirs.oci; do docker load -q -i $theirs; done
for tag in docker oci; do
    test "$(docker run --rm others/theirs:$tag)" = more
    test "$(docker run --rm others/theirs:$tag sh -c 'cat /hard; test -L /soft || echo gone')" = "$(printf 'kept\ngone')"
    test "$(docker image inspect -f '{{.Config.Labels.by}}' others/theirs:$tag)" = buildah
done
buildah rm archived laid
"#;

const REGISTRY: &str = r#"
printf 'FROM e2e/busybox:1\nRUN echo far > /far\nCMD ["cat","/far"]\n' | docker build -q -t $registry/others/ours -
docker push -q $registry/others/ours
podman pull -q $insecure $registry/others/ours
buildah from -q --pull-always $insecure --name pulled $registry/others/ours
buildah run --isolation chroot pulled -- grep far /far
buildah config --cmd 'cat /new' pulled
buildah run --isolation chroot pulled -- sh -c 'echo new > /new'
buildah commit -q $insecure pulled docker://$registry/others/built:oci
buildah commit -q $insecure --format docker pulled docker://$registry/others/built:docker
buildah commit -q $insecure --rm pulled others/squeezed
podman push -q --format oci --compression-format zstd others/squeezed oci:squeezed:1
skopeo --insecure-policy copy -q --preserve-digests --dest-tls-verify=false oci:squeezed:1 docker://$registry/squeezed/whole:zstd
curl -s --noproxy '*' -H 'Accept: application/vnd.oci.image.manifest.v1+json' http://$registry/v2/squeezed/whole/manifests/zstd | tee manifest | grep 'tar+zstd' || { cat manifest; false; }
docker rmi $registry/others/ours
for image in others/built:oci others/built:docker squeezed/whole:zstd; do
    test "$(docker run --rm -q $registry/$image)" = new
done
# A list of images for several machines: each takes its own.
podman manifest create list
podman manifest add list $insecure docker://$registry/others/built:oci
podman manifest add --arch s390x list $insecure docker://$registry/others/built:docker
podman manifest push -q $insecure --all list docker://$registry/others/list:1
test "$(docker run --rm -q $registry/others/list:1)" = new
docker manifest inspect --insecure $registry/others/list:1 | grep s390x
docker images -q $registry/others/* | sort -u | xargs docker rmi -f
docker rmi $registry/squeezed/whole:zstd
"#;

pub fn archives(engine: &Engine) -> Result<()> {
    let told = engine.shell(&format!("{PREPARED}{ARCHIVES}"))?;
    ensure!(told.lines().filter(|l| l.starts_with("Loaded image: others/")).count() == 5, "{told}");
    Ok(())
}

pub fn registry(engine: &Engine) -> Result<()> {
    let _registry = registry_on(engine, 5007)?;
    let told = engine.shell(&format!("{}{REGISTRY}", PREPARED.replace("/others;", "/others-registry;")))?;
    ensure!(told.contains("zstd"), "{told}");
    Ok(())
}
