//! Which user and group a container runs as.

use super::{Error, Inputs};

/// The ids inside the container, from the pod's security contexts or else the image.
pub(super) fn resolve(inputs: &Inputs<'_>) -> Result<(u32, u32), Error> {
    let of_pod = inputs.pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let of_container = inputs.container.security_context.as_ref();
    let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok());
    let uid = number(of_container.and_then(|context| context.run_as_user))
        .or_else(|| number(of_pod.and_then(|context| context.run_as_user)));
    let gid = number(of_container.and_then(|context| context.run_as_group))
        .or_else(|| number(of_pod.and_then(|context| context.run_as_group)));
    let (user, group) = inputs.image.user.split_once(':').unwrap_or((&inputs.image.user, ""));
    let (image_uid, primary) = match uid {
        Some(uid) => (uid, None),
        None => lookup_user(user, inputs.passwd)?,
    };
    let gid = match gid {
        Some(gid) => gid,
        None if uid.is_none() && !group.is_empty() => lookup_group(group, inputs.group)?,
        None => primary.unwrap_or(0),
    };
    let non_root = of_container
        .and_then(|context| context.run_as_non_root)
        .or_else(|| of_pod.and_then(|context| context.run_as_non_root))
        .unwrap_or(false);
    if non_root && image_uid == 0 {
        Err(Error::Root)
    } else {
        Ok((image_uid, gid))
    }
}

fn lookup_user(user: &str, passwd: &str) -> Result<(u32, Option<u32>), Error> {
    if user.is_empty() {
        return Ok((0, Some(0)));
    }
    let mut records = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() > 3);
    let number: Option<u32> = user.parse().ok();
    let found = match number {
        Some(_) => records.find(|fields| fields[2] == user),
        None => records.find(|fields| fields[0] == user),
    };
    match (number, found) {
        (Some(uid), found) => Ok((uid, found.and_then(|fields| fields[3].parse().ok()))),
        (None, Some(fields)) => {
            let uid = fields[2].parse().map_err(|_| Error::User(user.to_owned()))?;
            Ok((uid, fields[3].parse().ok()))
        }
        (None, None) => Err(Error::User(user.to_owned())),
    }
}

fn lookup_group(group: &str, file: &str) -> Result<u32, Error> {
    if let Ok(gid) = group.parse() {
        return Ok(gid);
    }
    let mut records = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = records.find(|fields| fields.len() > 2 && fields[0] == group);
    found
        .and_then(|fields| fields[2].parse().ok())
        .ok_or_else(|| Error::User(group.to_owned()))
}
